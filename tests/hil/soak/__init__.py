"""The soak: a node hears days of a street, and nothing in it may grow, be lost or come twice.

Two ways. *Simulated*: the daemon hears three days of a simulated street in some two hours, by a
card and a clock that run as fast as it can take the sound. *Real*: `gunfire-node run` hears a
virtual sound card in real time, for as long as one likes.

    python -m tests.hil.soak --simulated-hours 72
    python -m tests.hil.soak --hours 1
"""
