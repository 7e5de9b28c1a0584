"""Studies in memory, written to a storage in batches by a thread."""

from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

__all__ = ["WriteBehind"]
