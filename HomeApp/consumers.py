"""The socket of the START page."""

from channels_progress.consumers import StartConsumer


class WSConsumer(StartConsumer):
    """
    Connecting starts the task that the address names; its messages follow, and the
    socket closes after the last one.
    """
