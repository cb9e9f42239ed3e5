-- When the latest of what is there of a batch arrived; long ago where no row tells.
SELECT max(received) AS received FROM predictions WHERE source = {source:String} AND batch = {batch:String}
