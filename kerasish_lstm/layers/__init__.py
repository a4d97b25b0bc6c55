"""The torch modules that Keras has too.

Whoever imports one of them imports them all, so that a config of any of them is known by Keras's
name of its class.
"""

from . import lstm as lstm  # first: messages list the classes in the order of their definition

# isort: split
from . import bidirectional as bidirectional
from . import cell as cell
from . import lazy as lazy
from . import masking as masking
from . import stacked as stacked
from . import time_distributed as time_distributed
