"""The encoder `audioclip`."""
