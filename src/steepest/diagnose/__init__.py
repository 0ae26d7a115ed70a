"""Level 4: can a robust accuracy be believed? The package is also its main use, the function `api.diagnose`.

>>> import steepest as st
>>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
>>> x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
>>> st.diagnose(net, (x, net(x).argmax(1)), st.Linf(0.1), seconds=1).verdict.believable
True
"""

from steepest.basis.packages import make_callable

make_callable(__name__, "steepest.diagnose.api", "diagnose")
