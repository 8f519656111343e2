"""What is done before training: frames stored, files checked, sets of clips put in place."""
