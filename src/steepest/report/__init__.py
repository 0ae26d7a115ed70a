"""Level 6: records → page, as pure functions. The package is also its main use, the function `report.run.report`.

>>> import steepest as st
>>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
>>> run = st.audit(st.Model(net), "digits", st.Linf(0.1), preset="quick", limit=15, allow_chance=True)
>>> st.report(run).name
'report.html'
"""

from steepest.basis.packages import make_callable

make_callable(__name__, "steepest.report.run", "report")
