"""Protocol: the frames between client and hub, and who may send and read what."""
