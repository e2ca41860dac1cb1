"""Write the JSON Schemas into a folder: `python -m node.messages docs/look-up`."""

import sys
from pathlib import Path

from node.messages.schema import write_schemas

write_schemas(Path(sys.argv[1]))
