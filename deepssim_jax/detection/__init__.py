"""What every search for copies shares, of images, of volumes and in one set: nouns and the verdict."""
