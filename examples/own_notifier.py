"""A user's notifier, which sends a mail through the mail server of this machine.

From the root of the checkout:
trialbus study study=digits --config-dir examples/conf notify=mail notify.mail.to=me@localhost
"""

import smtplib
from email.message import EmailMessage

from trialbus_services.notify import Notice


class Mail:
    """Notifier that sends a mail through an SMTP server; trialbus repeats a failed call."""

    def __init__(self, to: str, host: str = "localhost", port: int = 25) -> None:
        self.to = to
        self.host = host
        self.port = port

    def __call__(self, notice: Notice) -> None:
        message = EmailMessage()
        message["From"] = message["To"] = self.to
        message["Subject"] = notice.title
        message.set_content(notice.text)
        with smtplib.SMTP(self.host, self.port, timeout=10) as server:
            server.send_message(message)
