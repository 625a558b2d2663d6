"""The encoder `vgg19_vggish`."""
