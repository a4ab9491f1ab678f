from .start import INSTALL as INSTALL
from .start import check_recipe as check_recipe
from .start import enter as enter
from .start import launched as launched
from .team import Team as Team
from .team import join as join
