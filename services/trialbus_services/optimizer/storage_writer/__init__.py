"""Record studies behind the optimizer's back: at once in memory, a moment later in the storage."""

from trialbus_services.optimizer.storage_writer.write_behind import WriteBehind

__all__ = ["WriteBehind"]
