"""All that the Teach tab says of its own accord, as strings.py does for the other tabs."""

TEACH = "Teach"
LOST = "The app does not answer. It may have been stopped: start it again, nothing is lost."

NOT_A_FORM = "That is no form of this page. Reload it."

# Navigation
ALL_RUNS = "All runs"
NEW_RUN = "Teach something new"
