"""Notifications about finished studies: notifiers, and listeners that call the notifiers.

A notifier of your own is any callable that takes a `Notice`; one that raises is called again.

```python
# my_notifiers.py, named by `_target_: my_notifiers.Bell` in the section `notify`
class Bell:
    def __call__(self, notice):
        print(notice.title, notice.text, sep=" | ")
```
"""

from trialbus_services.notify.notice import Notice, Notifier
from trialbus_services.notify.notifiers import Desktop, Slack, Webhook

__all__ = ["Desktop", "Notice", "Notifier", "Slack", "Webhook"]
