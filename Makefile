# gunfire-node: bare `make` lists the targets. The virtual environment is .venv/.
.DEFAULT_GOAL := help
