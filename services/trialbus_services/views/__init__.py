"""Views: the state of a study, folded from events and formatted as text."""
