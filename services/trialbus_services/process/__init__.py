"""Process: how processes begin, are watched, and end; where their files lie."""
