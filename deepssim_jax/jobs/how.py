"""What ties two images of one data set."""

import enum


class How(enum.StrEnum):
    """What ties two images.

    SAME_FILE: equal bytes. SAME_PIXELS: equal after decoding. COPY: one was made from the other, or
    both from one image: turned, mirrored, cropped, resized, compressed, relit or in part. SIMILAR: more
    alike than unrelated images, as neighbouring slices, two contrasts or very degraded copies are; no
    duplicate.
    """

    SAME_FILE = "same_file"
    SAME_PIXELS = "same_pixels"
    COPY = "copy"
    SIMILAR = "similar"
