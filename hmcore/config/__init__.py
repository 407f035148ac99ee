"""What people write and both ends read: the inventory, the settings with their presets, and a node's own configuration."""
