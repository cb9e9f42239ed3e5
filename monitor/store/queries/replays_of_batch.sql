-- How much there is of what was replayed of a batch's dead letters.
SELECT
    (SELECT count() FROM replayed_letters WHERE source = {source:String} AND batch = {batch:String})
    + (SELECT count() FROM batches WHERE source = {replay:String} AND batch = {batch:String}) AS held
