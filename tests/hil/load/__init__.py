"""Load: many nodes on one broker, and New Year's Eve at one node; parts of a table of claims."""
