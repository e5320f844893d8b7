"""What runs on Apache Spark; imported by the commands that use it alone."""
