"""What the properties share: their keywords, the runs that they compare, how these are judged and told."""
