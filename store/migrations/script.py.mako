"""${message}.

Revision: ${up_revision}, after ${down_revision | comma,n}. Forward only: to go back, restore a
backup.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
