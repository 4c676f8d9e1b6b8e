"""What a pair of programs is, and which loss fits which pair."""
