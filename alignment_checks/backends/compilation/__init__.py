"""What a batch computes as a graph, and the graph as code, in a form that a CPU computes faster."""
