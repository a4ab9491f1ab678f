from .team import Team as Team
from .team import check_recipe as check_recipe
from .team import join as join
from .team import launched as launched
