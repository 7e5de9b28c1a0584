"""Damage to files by faulty disks and memory, at random with a seed."""

from __future__ import annotations

import random


def flip_bit(image: bytes, chance: random.Random) -> tuple[bytes, int]:
    """Return a copy of a file's content with a flipped bit, and the position of the byte."""
    position = chance.randrange(len(image))
    damaged = bytearray(image)
    damaged[position] ^= 1 << chance.randrange(8)
    return bytes(damaged), position


def cut_short(image: bytes, chance: random.Random) -> tuple[bytes, int]:
    """Return the beginning of a file's content, and the position of the first byte missing."""
    position = chance.randrange(len(image))
    return image[:position], position


def tear_write(image: bytes, start: int, end: int) -> tuple[bytes, int]:
    """Return content whose last write ended in the middle, and the position of the first byte."""
    position = (start + end) // 2
    return image[:position] + bytes(end - position) + image[end:], position
