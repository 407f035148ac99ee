"""The containers' network on a node: routes and tunnels between nodes, published ports, names."""
