"""Transfer learning's three questions, answered by measurements: what to transfer, when, and how."""
