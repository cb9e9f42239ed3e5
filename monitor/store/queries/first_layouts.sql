SELECT environment, model, argMin(cells, added) AS cells
FROM layouts
GROUP BY environment, model
