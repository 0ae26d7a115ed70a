"""Level 4: train on worst-case points. The package is also its main use, the function `api.harden`.

Methods, the loop that they train in, the alarm that says when they stop being true, and their bias.

>>> import steepest as st
>>> net = torch.nn.Linear(4, 2)
>>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
>>> st.harden(net, (x, (x[:, 0] > 0.5).long()), st.Linf(0.05), epochs=2, batch_size=16, lr=0.5).stopped
''
"""

from steepest.basis.packages import make_callable

make_callable(__name__, "steepest.harden.api", "harden")
