"""forkserverctl profile: reading the samples of workers, and showing where their time goes"""
