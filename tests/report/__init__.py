"""`make report`: one page of HTML, complete in itself, with all that docs/evidence/ keeps.

The way of a figure: `kept` reads and checks the tables, `since` asks git how old they are,
`pictures` makes the plots small, `page` puts it all into template/.
"""
