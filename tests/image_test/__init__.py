"""`make image-test`: the image, booted under QEMU, from a bare card to a verified node."""
