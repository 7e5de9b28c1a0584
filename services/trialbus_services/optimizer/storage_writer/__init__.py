"""Storage writer: a storage in memory, and a thread that writes changes to another storage."""
