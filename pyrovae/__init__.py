"""pyrovae: which posterior q(z|x), and which ELBO estimator, should my VAE use?"""

import lazy_loader

__version__ = "0.1.0"

# PyTorch and Pyro take seconds to import: the console says what it does before
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
