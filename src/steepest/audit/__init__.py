"""Level 5: measure a data set. The package is also its main use, the function `audit.api.audit`.

>>> import steepest as st
>>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
>>> run = st.audit(st.Model(net), "digits", st.Linf(0.1), preset="quick", limit=15, allow_chance=True)
>>> 0 <= run.robust_accuracy <= run.clean_accuracy
True
"""

from steepest.basis.packages import make_callable

make_callable(__name__, "steepest.audit.api", "audit")
