"""Views: what happens in a study, folded from its events and shown in text. No sockets."""
