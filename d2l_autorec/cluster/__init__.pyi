from .processes import check_environment as check_environment
from .processes import prepare as prepare
from .team import Team as Team
from .team import check_portions as check_portions
from .team import join as join
