"""What gunicorn and the `flask` command load."""

import sys

from proxy import create_app
from proxy.settings import SettingError

try:
    app = create_app()
except SettingError as error:
    sys.exit(str(error))
