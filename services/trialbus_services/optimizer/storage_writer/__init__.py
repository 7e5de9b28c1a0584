"""Storage writer: a storage in memory, and a thread that writes changes to another storage."""

from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind
from trialbus_services.optimizer.storage_writer.writer import StorageLostError

__all__ = ["StorageLostError", "WriteBehind"]
