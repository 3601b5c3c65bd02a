"""What the tests stand on: real servers, whole exchanges as real processes, and virtual time.

servers     the three servers, once for the test run, for synchronous and asynchronous tests alike
exchange    an exchange of its own on them: daemons to kill, freeze and restart; users that join
"""
