"""From a bare card to an enrolled node: the laptop's, the broker's and the node's side of it.

In the wheel beside `node`, whose settings and messages it uses; nothing in `node` imports it.
"""
