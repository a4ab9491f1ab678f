from .processes import check_environment as check_environment
from .processes import check_recipe as check_recipe
from .processes import enter as enter
from .processes import prepare as prepare
from .team import Team as Team
from .team import join as join
