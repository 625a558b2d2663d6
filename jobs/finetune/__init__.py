"""`avel finetune`: an encoder's towers trained on the pairs of frames and audio of a data set."""
