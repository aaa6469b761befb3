"""What has arrived of a request, before anybody reads it."""


def is_whole(received: bytes) -> bool:
    """A request's head is there, and as much of a body as it announces."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = received[:end].lower()
    if b"\r\ntransfer-encoding:" in head:
        return False
    _, _, behind = head.partition(b"\r\ncontent-length:")
    announced = behind.partition(b"\r\n")[0].strip()
    if not announced:
        return True
    # What begins with many zeros is a number, too: nobody has to wait for such a one.
    if not announced.isdigit() or len(announced) > 15:
        return False
    return len(received) - end - 4 >= int(announced)
