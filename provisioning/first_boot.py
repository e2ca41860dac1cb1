"""On the node, at each boot: apply the file of the FAT partition."""
