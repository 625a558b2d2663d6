"""The encoder `i3d_vggish`."""
