"""Level 3: guaranteed lower bounds. This room never sees an attack, so the two sides are independent witnesses.

The package is also its main use, the function `api.certify`.

>>> import steepest as st
>>> f = st.Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
>>> st.certify(f, torch.tensor([[0.3, 0.1]]), torch.tensor([1]), st.Linf(0.04), method="linear").certified
tensor([True])
"""

from steepest.basis.packages import make_callable

make_callable(__name__, "steepest.certify.api", "certify")
